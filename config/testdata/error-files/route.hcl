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
route "sql" { # ERROR: route "sql" is not supported by this version
  driver = "postgres"
}
route "dovecot-auth" { # ERROR: route "dovecot-auth" is not supported by this version
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
