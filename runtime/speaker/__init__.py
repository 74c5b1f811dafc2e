"""What is seen and heard of the speaker: the face and its crop, coefficients, sound features, voice."""
