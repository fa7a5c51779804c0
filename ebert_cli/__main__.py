from ebert_cli.app import main

main()
