; A diskette that boots itself: reads its cylinder 1, head 1, sector 5 (a line of text), prints it on COM1, writes it to cylinder 2,
; reads all of that track, compares, prints how that went, and leaves through the debug exit. SECTORS: of a track.
bits 16
org 0x7c00

start:
    xor ax, ax
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov sp, 0x7c00
    cld
    mov [drive], dl
    mov ax, 0x0201              ; one sector to 0:8000
    mov cx, 0x0105
    call disk
    mov si, no_read
    jc finish
    mov si, 0x8000
    call print
    mov ax, 0x0301
    mov cx, 0x0205
    call disk
    mov si, no_write
    jc finish
    mov di, 0x8000
    mov cx, 256
    xor ax, ax
    rep stosw
    mov ax, 0x0200 + SECTORS    ; the track to 1000:0
    mov cx, 0x1000
    mov es, cx
    mov bx, 0
    mov cx, 0x0201
    call disk_at
    mov si, no_read
    jc finish
    mov di, 4 * 512
    mov si, text_copy
    mov cx, text_end - text_copy
    repe cmpsb
    mov si, differs
    jne finish
    mov si, written
finish:
    call print
    mov al, 0x10
    out 0xf4, al
    hlt

disk:
    mov bx, 0x8000
disk_at:
    mov dh, 1                   ; head
    mov dl, [drive]
    int 0x13
    ret

print:                          ; the text at SI, which ends with a zero
    lodsb
    test al, al
    jz .end
    mov cl, al
    mov dx, 0x3fd
.wait:
    in al, dx
    test al, 0x20
    jz .wait
    mov al, cl
    mov dx, 0x3f8
    out dx, al
    jmp print
.end:
    ret

drive:    db 0
text_copy: db "sector five", 10, 0
text_end:
written:  db "written", 10, 0
differs:  db "differs", 10, 0
no_read:  db "not read", 10, 0
no_write: db "not written", 10, 0
    times 510 - ($ - $$) db 0
    dw 0xaa55
    times ((1 * HEADS + 1) * SECTORS + 4) * 512 - ($ - $$) db 0
    db "sector five", 10, 0
    times CYLINDERS * HEADS * SECTORS * 512 - ($ - $$) db 0
