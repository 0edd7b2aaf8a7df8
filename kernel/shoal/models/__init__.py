"""The types that cross a boundary: the wire, the store, and the plugin seams."""
