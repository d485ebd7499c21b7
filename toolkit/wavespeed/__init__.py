"""The WaveSpeed REST API: its replies (`replies`), its traffic (`client`), and tasks that are paid once (`tasks`)."""
