"""Both stones in one step: AAVS that says where it sounds, and AAVS that is told so."""
