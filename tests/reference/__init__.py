"""Independent, slower re-implementations that the tests compare gradtap's numbers with."""
