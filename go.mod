module github.com/outwash/outwash

go 1.25.0
