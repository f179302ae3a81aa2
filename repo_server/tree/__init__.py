"""The downloads tree: read, watched and written. ``scan`` makes a catalogue of it, ``live`` holds the present one."""
