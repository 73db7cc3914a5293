"""What the sample data set is drawn and spoken with: clips, faces, motion, voice, and the video files."""
