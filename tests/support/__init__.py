"""What the tests of all folders share: real trees, processes and servers."""
