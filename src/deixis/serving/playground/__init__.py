"""The page in the browser: pictures in, boxes, masks and captions out, with the Python and the command that do it."""
