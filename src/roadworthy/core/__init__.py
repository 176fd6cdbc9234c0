"""What every stage shares; imports none of the stages."""
