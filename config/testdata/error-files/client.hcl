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
  allow { # ERROR: allow is not supported by this version
    commands = ["quota get"]
  }
  max_sessions = -1 # ERROR: Wrong value of max_sessions
  max_commands = "many" # ERROR: Wrong value of max_commands
  priority     = "high" # ERROR: Wrong value of priority
  rate_limit   = 1 # ERROR: rate_limit is not supported by this version
  tls_subject  = "x" # ERROR: tls_subject is not supported by this version
}
shard "s" {
  backend "b" {
    address  = "10.0.0.1:1"
    password = "x"
  }
}
