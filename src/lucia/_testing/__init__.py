"""What the public test helpers of :mod:`lucia.testing` are made of."""
