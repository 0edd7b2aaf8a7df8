"""What the kernel calls."""
