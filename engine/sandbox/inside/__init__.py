"""What runs inside: shipped as a folder that Python runs by itself, so its files know one another by their bare names."""
