"""What the kernel has counted: a module for each facility, read in the current namespace."""
