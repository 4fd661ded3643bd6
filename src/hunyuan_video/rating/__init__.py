"""People judge clips: a page that asks them, blind, and a report of what they said. Imports no torch."""
