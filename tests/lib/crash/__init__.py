"""The crash lab: what a disk may hold after the power went, for everything that this program does to its databases."""
