"""What IDEA-Research's GroundingDINO asks timm for, written for these tests."""
