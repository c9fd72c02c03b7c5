"""The availability chain: each link of it fails in turn, and what that costs is measured."""
