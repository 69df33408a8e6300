"""What a course needs around the library."""
