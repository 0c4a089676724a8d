"""RMSProp's steps beside those of clipping each coordinate: the paper's Discussion."""
