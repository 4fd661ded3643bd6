"""What a user types, as dataclasses, where several commands share it or a room of its own keeps `cli` short."""
