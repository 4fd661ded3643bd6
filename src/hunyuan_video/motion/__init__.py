"""How clips move, seen by OpenCV: the camera, and every pixel. Imports no torch; needs the extra `evaluate`."""
