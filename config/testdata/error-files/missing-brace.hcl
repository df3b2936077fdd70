listener "main" {
  address = "127.0.0.1:24245"

client "c" { # ERROR: client inside listener
  password = "{PLAIN}x"
}
shard "s1" {
  backend "b1" {
    address  = "10.0.0.1:99999" # ERROR: Wrong value of address
    password = "x"

}
shard "s2" { # ERROR: shard inside shard
  backend "b2" {
    address  = "10.0.0.2:1"
    password = "x"
  }
}
route "ring" {
  shards = ["s1", "s3"] # ERROR: Unknown shard "s3"
}
