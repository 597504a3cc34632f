"""What things are: messages, contracts, work, outcomes, context, errors. No I/O, no clock."""
