"""Replays: older records of a stream are read once more beside a mapping, as a hidden mapping that has an end. All of it is pure."""
