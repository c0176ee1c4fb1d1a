// SPDX-License-Identifier: GPL-2.0
#include <endian.h>
#include <string.h>
#include <unistd.h>

#include <linux/usb/functionfs.h>

#include "out_fence_util.h"
#include "functionfs_util.h"

struct block {
	char data[256];
	size_t len;
};

static void append(struct block *b, const void *data, size_t len)
{
	memcpy(b->data + b->len, data, len);
	b->len += len;
}

static void append_endpoint(struct block *b, unsigned int address, unsigned int max_packet)
{
	struct usb_endpoint_descriptor_no_audio endpoint = {
		.bLength = sizeof(endpoint),
		.bDescriptorType = USB_DT_ENDPOINT,
		.bEndpointAddress = address,
		.bmAttributes = USB_ENDPOINT_XFER_BULK,
		.wMaxPacketSize = htole16(max_packet),
	};

	append(b, &endpoint, sizeof(endpoint));
}

static void append_interface(struct block *b, bool to_host, unsigned int max_packet)
{
	struct usb_interface_descriptor interface = {
		.bLength = sizeof(interface),
		.bDescriptorType = USB_DT_INTERFACE,
		.bNumEndpoints = to_host ? 2 : 1,
		.bInterfaceClass = USB_CLASS_VENDOR_SPEC,
		.iInterface = 1,
	};

	append(b, &interface, sizeof(interface));
	if (to_host)
		append_endpoint(b, 1 | USB_DIR_IN, max_packet);
	append_endpoint(b, (to_host ? 2 : 1) | USB_DIR_OUT, max_packet);
}

static bool write_block(int fd, const struct block *b)
{
	return write(fd, b->data, b->len) == (ssize_t)b->len;
}

const char *ffs_write_descriptors(int ep0, const char *name, bool to_host)
{
	struct usb_functionfs_descs_head_v2 head = {
		.magic = htole32(FUNCTIONFS_DESCRIPTORS_MAGIC_V2),
		.flags = htole32(FUNCTIONFS_HAS_FS_DESC | FUNCTIONFS_HAS_HS_DESC),
	};
	struct usb_functionfs_strings_head strings_head = {
		.magic = htole32(FUNCTIONFS_STRINGS_MAGIC),
		.str_count = htole32(1),
		.lang_count = htole32(1),
	};
	__le32 count = htole32(to_host ? 3 : 2);	/* each, of both speeds */
	__le16 language = htole16(0x0409);
	struct block d = {}, s = {};

	append(&d, &head, sizeof(head));
	append(&d, &count, sizeof(count));
	append(&d, &count, sizeof(count));
	append_interface(&d, to_host, 64);
	append_interface(&d, to_host, 512);
	head.length = htole32(d.len);
	memcpy(d.data, &head, sizeof(head));

	append(&s, &strings_head, sizeof(strings_head));
	append(&s, &language, sizeof(language));
	append(&s, name, strlen(name) + 1);
	strings_head.length = htole32(s.len);
	memcpy(s.data, &strings_head, sizeof(strings_head));

	if (!write_block(ep0, &d))
		return wrong("descriptors: %m");
	if (!write_block(ep0, &s))
		return wrong("strings: %m");
	return NULL;
}
