"""A stand-in for the pulumi-kubernetes plugin, for machines where the official one cannot be had."""

VERSION = "4.24.0"
