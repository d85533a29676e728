"""Files of images and of arrays, read with nothing but the package of their kind."""
