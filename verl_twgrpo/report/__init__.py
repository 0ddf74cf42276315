"""What a run did, at a glance: figures, tables and a token heat map from what verl and the trainer wrote down."""
