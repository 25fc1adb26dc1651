"""VPO, composed of COCO's objects and VGGSound's recordings."""
