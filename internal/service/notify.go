package service

import (
	"fmt"
	"net"
	"os"
)

// notify tells the service manager a state, if it has asked for that: sd_notify(3),
// https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html. (A name that
// begins with @ is one in Linux's abstract name space; package net takes it so, too.)
func notify(state string) error {
	name := os.Getenv("NOTIFY_SOCKET")
	if name == "" {
		return nil
	}
	c, err := net.Dial("unixgram", name)
	if err != nil {
		return fmt.Errorf("service: $NOTIFY_SOCKET: %w", err)
	}
	defer c.Close()
	if _, err := c.Write([]byte(state)); err != nil {
		return fmt.Errorf("service: $NOTIFY_SOCKET: %w", err)
	}
	return nil
}
