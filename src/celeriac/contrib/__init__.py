"""What ties Celeriac to other frameworks; each part imports its framework only when it is used."""
