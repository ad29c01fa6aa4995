"""A small web of rendered scenes, served over real HTTP on loopback: the whole story runs anywhere, offline."""
