"""What is proved and what is hidden. Bytes in, bytes out: no file, clock, network, configuration or protobuf."""
