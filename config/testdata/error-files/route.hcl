listener "main" {
  address = "127.0.0.1:24245"
}
client "c" {
  password = "{PLAIN}x"
}
backend_defaults {
  password = "x"
}
shard "s1" {
  backend "b1" {
    address = "10.0.0.1:1"
  }
}
shard "s2" {
  backend "b2" {
    address = "10.0.0.2:1"
  }
}
route "match" { # ERROR: No shard # ERROR: No users
}
route "match" {
  users = [] # ERROR: Wrong value of users
  shard = "s1"
}
route "match" {
  users = "*" # ERROR: Wrong value of users
  shard = s1 # ERROR: Word without quotes
}
route "match" {
  users = [
    "a",
    1, # ERROR: Wrong value of users
  ]
  shard = "S1" # ERROR: Unknown shard "S1"
}
route "match" {
  users = ["a", "a"] # ERROR: Wrong value of users
  shard = "s1"
}
route "file" {
  path = "nonexistent.map" # ERROR: Path not usable
}
route "file" {
  path = "." # ERROR: Path not usable
}
route "sql" { # ERROR: No dsn # ERROR: No query
  driver = "postgres"
}
route "sql" {
  driver  = "oracle" # ERROR: Wrong value of driver
  dsn     = "secret"
  query   = "SELECT shard FROM mailbox WHERE username = ?"
  timeout = "0s" # ERROR: Wrong value of timeout
  cache {
    size = 0 # ERROR: Wrong value of size
  }
}
route "sql" {
  driver  = "mysql"
  dsn     = "secret"
  query   = "SELECT shard FROM mailbox WHERE username = $1" # ERROR: Query without the user
  channel = "moved" # ERROR: No notifications
}
route "sql" {
  driver = "sqlite"
  dsn    = "secret"
  query  = ""              # ERROR: Wrong value of query
  tables = "lua-director"  # ERROR: query and tables
}
route "ldap" { # ERROR: No attribute # ERROR: No base
  url      = "ldaps://ldap.example.com"
  starttls = true # ERROR: TLS twice
  bind_dn  = "cn=proxy" # ERROR: No bind_password
  filter   = "(mail=alice@example.com)" # ERROR: Filter without the user
}
route "ldap" {
  url           = "http://ldap.example.com" # ERROR: Wrong value of url
  bind_password = "secret" # ERROR: No bind_dn
  base          = "dc=example"
  filter        = "(mail=%u)"
  attribute     = "mailHost"
  scope         = "all" # ERROR: Wrong value of scope
}
route "http" {
  url     = "https://users.example.com/shard" # ERROR: URL without the user
  headers = ["X-Tenant"] # ERROR: Wrong value of headers
}
route "http" {
  url          = "https://user:secret@users.example.com/%u" # ERROR: Wrong value of url
  method       = "PUT" # ERROR: Wrong value of method
  headers_file = "nonexistent" # ERROR: Cannot read the headers file
}
route "dovecot-auth" { # ERROR: No socket
}
route "rnig" { # ERROR: Unknown kind of route "rnig"
}
route { # ERROR: No kind
}
route "ring" {
  algorithm = "ketama" # ERROR: Wrong value of algorithm
  shards = [
    "s1",
    "s3", # ERROR: Unknown shard "s3"
  ]
}
route "ring" { # ERROR: Route after a ring
}
