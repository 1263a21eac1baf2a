"""What teaching on the device is worth: labels held out of training, taught from 10 to 50 pictures."""
