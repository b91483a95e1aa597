#!/bin/sh
echo "hello from the first release"
