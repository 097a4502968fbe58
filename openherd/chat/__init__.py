"""The terminal conversation: state, commands, transcripts and rendering, each without the others where it can be."""
