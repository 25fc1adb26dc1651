"""Where parameters come from: cards, folders, pretrained ones, a phase before."""
