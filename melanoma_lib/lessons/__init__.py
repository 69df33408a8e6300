"""What the lessons compute and draw, so that a notebook cell is a line or two."""
