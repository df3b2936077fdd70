listener "main" {
  address = "127.0.0.1:24245"
}
client "a" { # ERROR: No password
}
client "b" {
  password = "in clear" # ERROR: Password without a scheme
}
client "c" {
  password = "{CRAM-MD5}9e81" # ERROR: Password scheme refused
}
client "d" {
  password = "{SECRET}x" # ERROR: Unknown password scheme
}
client "e" {
  password = "{PLAIN}" # ERROR: Password without data
}
client "f" {
  password      = "{PLAIN}x"
  password_file = "/nonexistent" # ERROR: Cannot read the password file # ERROR: Two passwords
}
client "g" {
  password = "" # ERROR: Wrong value of password
}
client "h" {
  password = "***" # ERROR: Wrong value of password
}
client "i" {
  password = "{PLAIN}a\nb" # ERROR: Wrong value of password
}
client "i" { # ERROR: Second client "i"
  password = env("DOVEADM_PROXY_TEST_NOT_SET") # ERROR: Environment variable not set
}
client "j" {
  password = file("nonexistent") # ERROR: Cannot read the file
}
client "k" {
  password = env("DOVEADM-PROXY") # ERROR: Not the name of a variable
}
client "l" {
  password = {} # ERROR: Expression not supported
}
client "m" {
  password = x # ERROR: Word without quotes
}
client "n" {
  password = "{ssha256.HEX}00"
  max_sessions = -1 # ERROR: Wrong value of max_sessions
  max_commands = "many" # ERROR: Wrong value of max_commands
  priority     = "high" # ERROR: Wrong value of priority
  rate_limit   = -1 # ERROR: Wrong value of rate_limit
}
client "o" { # ERROR: Client that nobody is
  username   = "n"
  password   = "{PLAIN}x"
  listeners  = ["mian"]     # ERROR: Unknown listener "mian"
  networks   = ["10.0.0.1"] # ERROR: Wrong value of networks
}
client "p" {
  tls_subject = "CN=p" # ERROR: No listener for certificates
  tls_san     = ["p.example.com"] # ERROR: Wrong value of tls_san
  unix_users  = ["no-such-user-here"] # ERROR: Not known on this system
}
client "q" {
  unix_groups = ["0"] # ERROR: No listener for local clients
}
client "r" {
  password = "{PLAIN}x"
  allow {
    commands   = ["raed"]    # WARNING: Unknown command
    users      = ["@"]       # ERROR: No domain
    users_file = "/nonexistent" # ERROR: Path not usable
    dangerous  = ["file"]    # ERROR: Wrong value of dangerous
  }
  allow {
    commands = ["read", "mailbox *", "mail?box *"] # WARNING: Pattern without a command
    shards   = ["x"] # ERROR: Unknown shard "x"
  }
  deny {
    backends = ["x"] # ERROR: Unknown backend "x"
    command  = "x"   # ERROR: Unknown attribute command
  }
  allow "x" { # ERROR: Label not allowed
  }
}
shard "s" {
  backend "b" {
    address  = "10.0.0.1:1"
    password = "x"
  }
}
