"""VPO: still pictures with the sounds of the objects in them."""
