"""Drawing views: encode the inputs once, render features at each target, and denoise."""
