"""The peers of the papers behind the Generator contract: one value `Method` each, one file where it has an own idea."""
