"""What finished runs say: a report on one, several compared, one on another collection."""
