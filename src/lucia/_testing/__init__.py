"""Parts of the public test helpers of :mod:`lucia.testing`."""
