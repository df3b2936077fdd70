# Behind each syntax error everything else is still reported.
log { level = "info"  format = "text" } # ERROR: Invalid single-argument block definition
limits {
  max_sessions = 10 idle_timeout = "5s" # ERROR: Missing newline after argument
  spool_dir = "C:\qtmp" # ERROR: Invalid escape sequence
  drain_timeout = "5x" # ERROR: Wrong value of drain_timeout
}
# NEXT ERROR: Quote not closed
listener "main {
  address = "127.0.0.1:24245"
}
listener "local" {
  # NEXT ERROR: Quote not closed
  address = "unix:/run/socket
  # NEXT ERROR: Missing newline after argument
  mode = 0600"
  cleint = "c" # ERROR: Unknown attribute cleint
}
client "c" {
  password = '{PLAIN}x' # ERROR: Syntax error
  password = "x # ERROR: Quote not closed
  password "x" # ERROR: Syntax error
  password = "{PLAIN}x"
  password = "{PLAIN}y" # ERROR: Attribute redefined
}
} # ERROR: Closing brace without a block
# NEXT ERROR: Invalid block definition
client "d"
  password = "x" # not looked at
}
shard "s1" {
  backend "b1" { address = "10.0.0.1:1"  password = "x" } # ERROR: Syntax error
  backend b2 {
    address  = 10.0.0.2:1 # ERROR: Invalid number literal
    password = "x"
    pool {
      max_open = # ERROR: Invalid expression
      max_idle = "x" # ERROR: Wrong value of max_idle
    }
  }
}
route "match" {
  users = ["a" "b"] # ERROR: Missing item separator
  shard = "s1"
}
route "match" {
  # NEXT ERROR: Missing item separator
  users = ["a", "b"
  shard = "s1"
}
route "ring" { # ERROR: Unclosed configuration block
  shards: ["s1"] # ERROR: Argument or block definition required
