"""Notes as plain data: reading, drawing, sounding and judging scores."""
