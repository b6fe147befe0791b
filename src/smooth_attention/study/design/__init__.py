"""What a study is asked: configuration, arms, plan."""
