"""A stand-in for the pulumi-kubernetes plugin, where the official one cannot be had."""

VERSION = "4.24.0"
